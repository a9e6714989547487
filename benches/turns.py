"""The order in which contenders take turns."""


def turns(contenders, rounds):
    """All of them in each round; who goes first takes turns too."""
    everyone = list(contenders)
    for number in range(rounds):
        first = number % len(everyone)
        yield everyone[first:] + everyone[:first]
