"""The guide's tasks as checks: one file a task, for this project's own modules and for a student's.

    __main__     the ladder: `python main.py check`, which is `python -m tests.milestones`
    runner       what others call: checks tasks, returns what came of them
    batch        forks a process for each task, and ends it when its time is over
    child        that process: finds the modules, runs the checks, writes down what came
    student      finds names in a student's modules, calls them, and turns surprises into sentences
    lesson       torrents, a tracker and seeders to check against, of the standard library alone
    test_task_*  the tasks, in the guide's order and words
    ours         this project's modules under the guide's names
    right        a small right solution, written for a student to compare with at the very end
    test_checker the checker's own tests: the right solution passes, and each wrong one fails for its reason

Nothing here but the tests needs pytest, so that the checks run in a plain installation.
"""
