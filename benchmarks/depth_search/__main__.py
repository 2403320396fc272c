"""`python -m benchmarks.depth_search NETWORK`."""

from benchmarks.depth_search.search import main

raise SystemExit(main())
