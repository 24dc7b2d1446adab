"""The collection's Grafana dashboards, one module each. What they share is in `shared`; docs/dashboards.md says how."""
