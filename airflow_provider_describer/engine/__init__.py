"""One task's work, in the order in which an image goes through it: job, plan, runner, admission, call, outcomes."""
