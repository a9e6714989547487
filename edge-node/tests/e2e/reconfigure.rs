//! The configuration file edited under a running edge.

use std::fs;

use crate::nodes::{CONFIG, Nodes, digits, eventually, split_point};

#[tokio::test]
async fn the_split_point_moves_with_the_file_and_a_bad_edit_does_not() {
    let nodes = Nodes::start(CONFIG).await;
    let input = digits(&nodes.config(), 2);
    let first = nodes.infer(input.clone()).await.unwrap();
    assert_eq!(split_point(&first), 2);

    for split in [5, 0, 6, 3] {
        nodes.write_config(&CONFIG.replace("split_point = 2", &format!("split_point = {split}")));
        let moved = eventually("the new split point", async || {
            let reply = nodes.infer(input.clone()).await.expect("no request fails meanwhile");
            // The same seed is the same model, wherever it is cut.
            assert_eq!(reply.raw_output_contents, first.raw_output_contents);
            (split_point(&reply) == split).then_some(())
        });
        moved.await.unwrap_or_else(|| panic!("{}", nodes.logs()));
    }

    for (bad, complaint) in [
        ("split_point = 7", "split_point: 7 is out of range; allowed: 0 to 6"),
        ("splitpoint = 2", "splitpoint: unknown key"),
        ("split_point = ", "cleave.toml: file:"),
        ("split_point = 1\nseed = 99", "restart the node"),
    ] {
        nodes.write_config(&CONFIG.replace("split_point = 2", bad));
        let said = eventually("the complaint", async || {
            let log = fs::read_to_string(nodes.path().join("edge.log")).unwrap();
            log.contains(complaint).then_some(())
        });
        said.await.unwrap_or_else(|| panic!("{complaint}: {}", nodes.logs()));
        let reply = nodes.infer(input.clone()).await.expect("the old setting stays in force");
        assert_eq!(reply.raw_output_contents, first.raw_output_contents);
        assert!([3, 1].contains(&split_point(&reply)));
    }
}
