"""What components that act on a platform share: calls that end and speak plainly, jobs that are started once."""
