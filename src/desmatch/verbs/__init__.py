"""What each verb of the command line does; heavy imports happen inside."""
