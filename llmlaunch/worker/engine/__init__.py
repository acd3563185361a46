"""From requests to tokens: scheduler, batches, sampler, stops."""
