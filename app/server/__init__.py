"""How gunicorn serves the application. The only package that knows gunicorn."""
