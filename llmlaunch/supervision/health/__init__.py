"""Whether a component is ready and alive: its probes, and what their answers mean."""
