"""Parts of `diff`: which tasks are the same, where inputs come from, what a component does differently."""
