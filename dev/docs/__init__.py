"""What is written from the code: parts of pages in docs/, and the Grafana dashboard."""
