"""What a customer is told about their terminal. Pure: facts and the clock in, words out; no query, no request.

saying      the one sentence, its mark, and what stands below it, for every status, connection, refusal and reason
elsewhere   a machine that is silent or lost, and a terminal that comes up on another one
living      what a live terminal has of its own: held, proven, refused, stopped for a payment
refusals    what a broker's no means, and what to do about it
steps       what has been done, is being done and comes, with its times
facts       what the bridge last reported, and the numbers that name the terminal
ending      when a Press Pass ends and what keeps it
journal     its history in plain words
"""

from presspass.telling.situation import Action, Came, Mark, Situation, Told
from presspass.telling.tell import tell, tell_nothing

__all__ = ["Action", "Came", "Mark", "Situation", "Told", "tell", "tell_nothing"]
