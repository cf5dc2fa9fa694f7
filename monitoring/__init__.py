"""How a process shows itself: metrics, health, a small web server, log lines, progress bars."""
