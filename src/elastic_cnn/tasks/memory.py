"""What processes that train small networks are started with."""

# glibc gives large blocks back to the system each step, which then clears them anew: small networks train several times
# faster when it keeps them. Read when a process starts.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "67108864",
}
