"""The experiment language: studies, designs, claims and how they are decided, plans, identity."""
