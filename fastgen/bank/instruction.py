"""What a language model is told to do: DALDA's five rules in own words, and its answer as JSON by class name."""

import json
from collections.abc import Mapping, Sequence

from fastgen.bank.chat import Messages

INSTRUCTION = """\
You write prompts for a text-to-image model. The images will train a classifier, so every prompt belongs to one class.

For each class in the user's list write one English sentence that describes one picture:
1. The picture shows the class in the middle, as the main thing, and would not look out of place in the data set.
2. What makes the class recognizable stays as it is. Around it, put things that are not the class.
3. The sentence tells the camera's view, colors, what is being done, foreground, background and surroundings.
4. Everything in it is realistic for this class and this data set.
5. There is exactly one sentence per class, of at most 40 words. It contains the name of its class, spelled as in the \
list, and the name of no other class of the list.

Let the pictures differ from one another as much as the rules allow.

Answer with one JSON object and nothing else. Its keys are the class names exactly as they are listed, each of them \
once, and every value is that class's sentence:
{"first class": "sentence", "second class": "sentence"}
"""


def messages_for(description: str, classes: Sequence[str], faults: Mapping[str, str] | None = None) -> Messages:
    """Return the messages that ask for one sentence for each class.

    Args:
        description: of the data set: a few sentences on what its pictures show.
        classes: names to write for.
        faults: what was wrong with the last sentence of some of these classes.
    """
    content = f"Data set:\n{description}\n\nClasses ({len(classes)}):\n{_json(list(classes))}"
    if faults:
        content += f"\n\nThe last sentences for these classes could not be used; avoid this:\n{_json(dict(faults))}"
    return [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": content}]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
