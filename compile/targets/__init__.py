"""One folder a platform: what it supports, lowers and refuses, and how a pipeline gets there."""
