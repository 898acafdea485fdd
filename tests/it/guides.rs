//! What the guides show is what there is.

#[test]
fn the_guide_to_embedding_shows_the_example() {
    let text =
        |name: &str| std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let (guide, example) = (text("docs/embed-it.md"), text("examples/embed.rs"));
    let shown = guide.split("```rust\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(shown, &example[example.find("use std::sync::Arc;").unwrap()..]);
    assert!(example.lines().filter(|line| !line.is_empty()).count() <= 40);
}
