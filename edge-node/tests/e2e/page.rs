//! Changes that are asked for on the page, of real nodes.

use std::fs;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::nodes::{CONFIG, Nodes, digits, eventually, split_point};

const TOKEN: &str = "a-token-for-this-test";

/// A request over HTTP/1.1 by hand; gives status and body.
async fn ask(nodes: &Nodes, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
    let mut stream = TcpStream::connect(("127.0.0.1", nodes.http_port)).await.unwrap();
    let body = body.to_string();
    let request = format!(
        "{method} /page/api/{path} HTTP/1.1\r\nhost: edge\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").expect("a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), serde_json::from_str(body).expect("JSON"))
}

async fn put(nodes: &Nodes, path: &str, body: Value) -> (u16, Value) {
    ask(nodes, "PUT", path, TOKEN, &body).await
}

#[tokio::test]
async fn a_split_point_and_a_link_that_are_asked_for_are_in_force_until_the_file_changes() {
    let mut nodes = Nodes::new(CONFIG);
    let token = nodes.path().join("token");
    fs::write(&token, TOKEN).unwrap();
    nodes.edge_sets = vec![format!("edge.admin_token={}", token.display())];
    nodes.start_cloud().await;
    nodes.start_edge().await;
    let input = digits(&nodes.config(), 2);
    let first = nodes.infer(input.clone()).await.unwrap();
    assert_eq!(split_point(&first), 2);

    for split in [5, 0, 6, 3] {
        let (status, answer) = put(&nodes, "split-point", json!({ "split_point": split })).await;
        assert_eq!((status, &answer["split_point"]), (200, &json!(split)), "{}", nodes.logs());
        // The very next request is cut there.
        let reply = nodes.infer(input.clone()).await.unwrap();
        assert_eq!(split_point(&reply), split);
        assert_eq!(reply.raw_output_contents, first.raw_output_contents);
    }
    let (status, _) = put(&nodes, "link-profile", json!({ "profile": "wifi" })).await;
    assert_eq!(status, 200);
    let (_, state) = ask(&nodes, "GET", "state", "", &Value::Null).await;
    assert_eq!(state["link"]["profile"], json!("wifi"));
    assert_eq!(state["deployed"]["split_point"], json!(3));

    for (path, body, complaint) in [
        (
            "split-point",
            json!({ "split_point": 7 }),
            "split_point: 7 is out of range; allowed: 0 to 6",
        ),
        ("link-profile", json!({ "profile": "7g" }), "link.profile: \"7g\": unknown profile"),
        ("link-profile", json!({ "profile": "../lte" }), "is not the name of a link profile"),
    ] {
        let (status, answer) = put(&nodes, path, body).await;
        let error = answer["error"].as_str().unwrap_or_default().to_string();
        assert!(status == 422 && error.contains(complaint), "{status} {error}");
        let reply = nodes.infer(input.clone()).await.expect("the old setting stays in force");
        assert_eq!(split_point(&reply), 3);
    }
    let (status, _) =
        ask(&nodes, "PUT", "split-point", "guessed", &json!({"split_point": 1})).await;
    assert_eq!(status, 401);

    // Another key of the file leaves what was asked for; the same key ends it.
    nodes.write_config(&CONFIG.replace("epochs = 3", "epochs = 4"));
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!(split_point(&nodes.infer(input.clone()).await.unwrap()), 3);
    nodes.write_config(&CONFIG.replace("split_point = 2", "split_point = 4"));
    let moved = eventually("the file's split point", async || {
        let reply = nodes.infer(input.clone()).await.expect("no request fails meanwhile");
        (split_point(&reply) == 4).then_some(())
    });
    moved.await.unwrap_or_else(|| panic!("{}", nodes.logs()));
}

#[tokio::test]
async fn a_cut_that_the_cloud_does_not_agree_to_is_refused_and_the_edge_goes_on() {
    let mut nodes = Nodes::new(&CONFIG.replace("split_point = 2", "split_point = 6"));
    let token = nodes.path().join("token");
    fs::write(&token, TOKEN).unwrap();
    nodes.edge_sets = vec![format!("edge.admin_token={}", token.display())];
    // All stages are on the edge: it needs no cloud.
    nodes.start_edge().await;
    let input = digits(&nodes.config(), 1);
    assert_eq!(split_point(&nodes.infer(input.clone()).await.unwrap()), 6);
    let (status, answer) = put(&nodes, "split-point", json!({ "split_point": 2 })).await;
    assert_eq!(status, 422, "{answer}");
    let error = answer["error"].as_str().unwrap().to_string();
    assert!(error.contains(&format!("127.0.0.1:{}", nodes.cloud_port)), "{error}");
    assert_eq!(split_point(&nodes.infer(input.clone()).await.unwrap()), 6);
    nodes.start_cloud().await;
    let (status, answer) = put(&nodes, "split-point", json!({ "split_point": 2 })).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(split_point(&nodes.infer(input).await.unwrap()), 2);
}
