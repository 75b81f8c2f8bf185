"""What waits in the triggerer. Nothing here makes a billable call: a triggerer that dies runs its triggers again."""
