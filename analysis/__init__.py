"""From stored results to effects, tables, the report and the dashboard."""
