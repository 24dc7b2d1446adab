"""What all dashboards share: pages, variables, panels, tables and links."""
