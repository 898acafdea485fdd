use super::*;

const END: u32 = 0;

fn catalog(items: &[&[u32]]) -> Objective {
    let items: Vec<Vec<u32>> = items.iter().map(|item| item.to_vec()).collect();
    Objective::new(ObjectiveKind::Catalog, ItemTrie::new(&items).unwrap())
}

fn planned(objective: &Objective, target: &[u32]) -> (Vec<u32>, Vec<usize>) {
    let mut plan = objective.plan(&[target]).unwrap();
    (plan.inputs.remove(0), plan.positions.remove(0))
}

#[test]
fn a_title_runs_up_to_its_last_choice() {
    let objective = catalog(&[&[1, 2, 3, 4, END], &[1, 2, 5, END], &[1, 2, 5, 6, 7, END]]);
    assert_eq!(planned(&objective, &[1, 2, 3, 4, END]), (vec![1, 2], vec![2]));
    assert_eq!(planned(&objective, &[1, 2, 5, 6, 7, END]), (vec![1, 2, 5], vec![2, 3]));
    // The end of a title that begins another is a choice.
    assert_eq!(planned(&objective, &[1, 2, 5, END]), (vec![1, 2, 5], vec![2, 3]));
    assert_eq!(objective.size(&[1, 2, 5, END]).unwrap(), TargetSize { titles: 1, choices: 2 });
    let published = objective.with_kind(ObjectiveKind::Vocabulary).unwrap();
    assert_eq!(planned(&published, &[1, 2, 5, END]), (vec![1, 2, 5], vec![0, 1, 2, 3]));
}

#[test]
fn titles_that_follow_each_other_begin_at_the_root_and_run_without_end_tokens() {
    let objective = catalog(&[&[1, END], &[1, 2, END], &[3, 4, END]]);
    let target = [1, END, 3, 4, END, 1, 2, END];
    assert_eq!(planned(&objective, &target), (vec![1, 3, 4, 1], vec![0, 1, 1, 3, 4]));
    assert_eq!(objective.size(&target).unwrap(), TargetSize { titles: 3, choices: 5 });
}

#[test]
fn the_only_title_of_a_catalog_is_certain() {
    let objective = catalog(&[&[1, 2, END], &[1, 2, END]]);
    assert_eq!(planned(&objective, &[1, 2, END]), (vec![], vec![0]));
    assert!(objective.is_found(objective.tree().unwrap(), ItemTrie::ROOT));
}

#[test]
fn what_is_no_title_is_refused() {
    let objective = catalog(&[&[1, 2, END], &[3, END]]);
    for target in [&[1, END][..], &[1, 2], &[5], &[3, END, 1]] {
        let problem = objective.size(target).unwrap_err().to_string();
        assert!(problem.contains("not a title in the catalog"), "{problem}");
    }
    assert!(Objective::vocabulary().with_kind(ObjectiveKind::Catalog).is_err());
    assert!(Objective::vocabulary().tree().is_err());
}
