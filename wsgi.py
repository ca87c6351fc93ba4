"""What `gunicorn wsgi:app` and `flask --app wsgi run` serve."""

from app import create_app
from app.server import launch

app = create_app(starts_consumer=launch.is_to_follow())
launch.check_server()
