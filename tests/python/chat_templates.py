"""What transformers makes of chat templates: chat_templates.py < cases.json > rendered.json

Each case has template, messages and tokens; the answer is the prompt, or null where the template
raises an exception.
"""

import json
import sys

from transformers.utils.chat_template_utils import render_jinja_template


def rendered(case):
    try:
        texts, _ = render_jinja_template(
            conversations=[case["messages"]],
            chat_template=case["template"],
            add_generation_prompt=True,
            **case["tokens"],
        )
    except Exception as error:
        print(f"refused: {error}", file=sys.stderr)
        return None
    return texts[0]


json.dump([rendered(case) for case in json.load(sys.stdin)], sys.stdout)
