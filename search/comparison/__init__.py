"""The end of a search: finalists, rivals, the held-out part, and the leaderboard."""
