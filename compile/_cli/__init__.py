"""What stands behind the commands; each module is imported when its command runs, so that --help is quick."""
