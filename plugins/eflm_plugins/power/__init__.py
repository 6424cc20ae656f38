"""Sources of power and energy readings: NVML, RAPL and zeus. Read by the parent process."""
