"""Dashboards as code: for Grafana on its own builder library, one file each, and for CloudWatch."""
