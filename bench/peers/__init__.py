"""What the service is measured against, each as small as such a thing usually is."""
