"""What this machine has: GPUs through NVML or simulated, main memory, ports and addresses."""
