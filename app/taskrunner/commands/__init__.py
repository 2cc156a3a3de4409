"""What ``taskrunner task …`` does, over HTTP: arguments, calls, words. Needs no database; imports the client when it calls."""
