"""The state machine of a component, restart policy and reconcile. Pure: (record, event) → (record, commands)."""
