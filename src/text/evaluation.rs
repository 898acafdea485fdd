use super::duration::duration;
use super::table::table;
use crate::eval::{CUTOFFS, EvaluationResult, Exposure, Metric, Ranking, Shard, TargetGroups, TransitionConfig};
use crate::run::ChosenGuidance;

/// The metrics of an evaluation: how well the model ranks, for whom, what its lists show, and what they cost.
pub fn of_evaluation(result: &EvaluationResult) -> String {
    let evaluation = &result.evaluation;
    let rankings =
        [("model", &evaluation.by_item), ("by title", &evaluation.by_title), ("popularity", &evaluation.popularity)];
    let part = match result.shard {
        Shard::WHOLE => String::new(),
        shard => format!(" (shard {shard} of {} rows)", result.users_of_all_parts),
    };
    let objective = match (evaluation.method.objective, result.trained_objective) {
        (Some(objective), Some(trained)) if objective != trained => {
            format!("objective {objective}; the model was trained for {trained}\n")
        }
        (Some(objective), _) => format!("objective {objective}\n"),
        (None, _) => String::new(),
    };
    let (rows, users) = (evaluation.users, evaluation.distinct_users());
    let (time, speed) = (duration(evaluation.seconds), rows as f64 / evaluation.seconds);
    let rows = if rows == users { format!("{users} users") } else { format!("{rows} rows of {users} users") };
    let TargetGroups { cold, warm, head, middle, tail } = &evaluation.targets;
    let groups = [("cold", cold), ("warm", warm), ("head", head), ("middle", middle), ("tail", tail)];
    let groups = groups.into_iter().filter(|(_, group)| group.users > 0);
    let groups: Vec<_> =
        groups.map(|(name, group)| (format!("{name} ({} rows)", group.users), &group.by_item)).collect();
    let groups: Vec<_> = groups.iter().map(|(name, ranking)| (name.as_str(), *ranking)).collect();
    let shown = evaluation.exposure.as_ref().map_or(String::new(), |exposure| {
        let Exposure { k, average_popularity, coverage, gini, entropy } = exposure;
        format!(
            "first {k} places: {average_popularity:.1} training interactions per item, coverage {coverage:.4}, \
             Gini {gini:.4}, entropy {entropy:.2} bits\n"
        )
    });
    format!(
        "{}\nby popularity of the target\n{}{shown}{objective}{rows}{part} in {time}, {speed:.1} rows/s\n",
        of_rankings(&rankings),
        of_rankings(&groups)
    )
}

/// HR and NDCG of several rankings as a table, each under its name.
pub(super) fn of_rankings(rankings: &[(&str, &Ranking)]) -> String {
    let head = |name: &str| CUTOFFS.iter().map(|k| format!("{name}@{k}")).collect::<Vec<_>>();
    let mut rows = vec![[vec![String::new()], head("HR"), head("NDCG")].concat()];
    for (name, ranking) in rankings {
        let cells = |metric: fn(usize) -> Metric| {
            let cell = |k| ranking.get(metric(k)).map_or("-".into(), |value| format!("{value:.4}"));
            CUTOFFS.into_iter().map(cell).collect::<Vec<_>>()
        };
        rows.push([vec![name.to_string()], cells(Metric::Hr), cells(Metric::Ndcg)].concat());
    }
    table(&rows)
}

/// A guidance that was tried on validation users, in a line.
pub fn of_guidance(guidance: &ChosenGuidance) -> String {
    let ChosenGuidance { kind, scale, transition, ndcg, users, .. } = guidance;
    let smoothing = transition.map_or(String::new(), |transition| format!(", smoothing {}", transition.smoothing));
    let ndcg = ndcg.unwrap_or(f64::NAN);
    format!("guidance {kind}, scale {scale}{smoothing}: NDCG {ndcg:.4} on {users} validation users")
}

/// How transitions are counted, as it was chosen on validation, by the options that give it.
pub fn of_transition(config: &TransitionConfig, ndcg: f64) -> String {
    let TransitionConfig { position_decay, distance_decay, smoothing } = config;
    format!(
        "chosen on validation, NDCG@10 {ndcg:.4}: --position-decay {position_decay} --distance-decay {distance_decay} \
         --smoothing {smoothing}"
    )
}
