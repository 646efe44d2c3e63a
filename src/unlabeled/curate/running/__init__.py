"""How a recipe is run: tasks, passes, grouping on disk, the last writing, and where jobs run."""
