"""What `gunicorn wsgi:app` and `flask --app wsgi run` serve."""

from app import create_app
from app.server import launch

app = create_app(starts_consumer=launch.starts_consumer())
launch.check_server()
