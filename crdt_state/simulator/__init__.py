"""The production code in a simulated world: one thread, one seed, weather, and faulty disks."""
