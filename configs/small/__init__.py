"""The demo: stages for `weights/small`, on phantoms and two CPU cores."""
