//! Templates in the style of well-known models, against what transformers makes of them.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::*;

const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}{% endif %}\
{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

const LLAMA2: &str = "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}\
{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}\
{% set system_message = false %}{% endif %}{% for message in loop_messages %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{% if loop.index0 == 0 and system_message != false %}\
{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}\
{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}\
{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}\
{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}";

/// Blocks on lines of their own, `namespace`, filters, methods, tests, `tojson`.
const LINES: &str = r#"{{- bos_token }}
{%- set ns = namespace(system='', turns=0) %}
{%- if tools is not none %}
    {{- raise_exception('no tools here') }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {%- set ns.system = message.content | trim %}
    {%- else %}
        {%- set ns.turns = ns.turns + 1 %}
    {%- endif %}
{%- endfor %}
{% if ns.system and not ns.system.startswith('/') %}
  system: {{ ns.system.upper() }}
{% endif %}
{% for message in messages if message.role != 'system' %}
    {% generation %}
{{ loop.index }}/{{ ns.turns }} {{ message['role'] | capitalize }}: {{ message.content.split('|')[-1].lstrip() | tojson }}
    {% endgeneration %}
    {%- if not loop.last and loop.nextitem is defined %} next={{ loop.nextitem.role }}{% endif %}

{% endfor %}
{{ messages | map(attribute='role') | join(',') }} {{ messages | length }} {{ undefined_thing }}
{%- if documents is defined and documents %} documents {% endif %}
{%- for i in range(3) %}{% if i == 1 %}{% continue %}{% endif %}[{{ i }}]{% endfor %}
{{ {'a': [1, 2.5, none, true], 'b': "<&'\"é"} | tojson }}
{%- if add_generation_prompt %}assistant:{% endif %}
"#;

fn conversations() -> Vec<Value> {
    let message = |role: &str, content: &str| json!({ "role": role, "content": content });
    vec![
        json!([message("user", "hello\nthere")]),
        json!([message("system", " be <brief> & \"kind\" "), message("user", "a|b c ")]),
        json!([
            message("user", "é?"),
            message("assistant", " yes "),
            message("user", "why {{ not }}")
        ]),
        json!([message("user", "one"), message("user", "two")]),
    ]
}

fn of_transformers(cases: &Value) -> Vec<Option<String>> {
    let python = std::env::var("CLEAVE_TEST_PYTHON")
        .expect("CLEAVE_TEST_PYTHON is not set: run scripts/test, which makes the environment");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python/chat_templates.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python runs");
    child.stdin.take().unwrap().write_all(cases.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn prompts_are_those_of_transformers() {
    let tokens = BTreeMap::from([
        ("bos_token".to_string(), "<s>".to_string()),
        ("eos_token".to_string(), "</s>".to_string()),
    ]);
    let pairs: Vec<(&str, Value)> = [CHATML, LLAMA2, LINES]
        .into_iter()
        .flat_map(|template| conversations().into_iter().map(move |c| (template, c)))
        .collect();
    let cases: Vec<Value> = pairs
        .iter()
        .map(|(template, c)| json!({ "template": template, "messages": c, "tokens": tokens }))
        .collect();
    let expected = of_transformers(&cases.into());
    assert_eq!(expected.iter().filter(|text| text.is_none()).count(), 1, "one is refused");
    for ((template, conversation), expected) in pairs.into_iter().zip(expected) {
        let text = |m: &Value, key: &str| m[key].as_str().unwrap().to_string();
        let messages: Vec<Message> = conversation
            .as_array()
            .unwrap()
            .iter()
            .map(|m| Message { role: text(m, "role"), content: text(m, "content") })
            .collect();
        let template = ChatTemplate::new(template.into(), tokens.clone()).unwrap();
        match (template.render(&messages), expected) {
            (Ok(found), Some(expected)) => assert_eq!(found, expected),
            (Err(why), None) => assert!(why.contains("roles must alternate"), "{why}"),
            (found, expected) => panic!("{found:?}, not {expected:?}"),
        }
    }
}

#[test]
fn the_time_is_in_the_format_asked_for() {
    let template = ChatTemplate::new("{{ strftime_now('%Y') }}".into(), BTreeMap::new()).unwrap();
    let year: u16 = template.render(&[]).unwrap().parse().unwrap();
    assert!((2026..2200).contains(&year));
}

#[test]
fn a_broken_template_says_where() {
    let Err(problem) = ChatTemplate::new("a\n{% if %}".into(), BTreeMap::new()) else {
        panic!("it compiled");
    };
    assert!(problem.contains("chat:2") && !problem.contains('\n'), "{problem}");
}
