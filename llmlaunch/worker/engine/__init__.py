"""From requests to tokens: scheduler, prefix cache, batching, sampler, structured output."""
