"""The commands of searching and serving; `indexer.cli` finds them through their entry points."""
