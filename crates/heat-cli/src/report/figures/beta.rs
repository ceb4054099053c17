//! What a composition's β does.

use heat_ood::Result;
use heat_ood::compose::combine;
use heat_ood::metrics;

use crate::report::evaluation::{Composition, Evaluation};
use crate::report::html::figure;
use crate::report::ink::Ink;
use crate::report::plot::{Axis, Mark, Panel};

/// Where ±∞ is drawn.
const END: f64 = 10.0;

const CAPTION: &str = "\
AUROC of the composition of the same members with other β: −∞ takes the least of the standardised scores, 0 their sum, ∞ the \
greatest. Left: the average over the out-of-distribution sets; the dot is the β of this evaluation, the horizontal line the best \
member alone. Right: each set. A β chosen by these curves is chosen on test data: report it as such.";

pub fn render(e: &Evaluation) -> Result<String> {
    let mut out = String::new();
    for (n, composition) in e.compositions.iter().enumerate() {
        out.push_str(&one(e, n, composition)?);
    }
    Ok(out)
}

fn one(e: &Evaluation, n: usize, c: &Composition) -> Result<String> {
    let betas: Vec<f64> = [f64::NEG_INFINITY]
        .into_iter()
        .chain((-8..=8).map(f64::from))
        .chain([f64::INFINITY])
        .collect();
    let per_beta = betas.iter().map(|b| aurocs(e, c, *b)).collect::<Result<Vec<_>>>()?;
    let used = mean(&aurocs(e, c, c.beta)?);
    let mut best_member = (0.0, "");
    for m in &c.members {
        let alone = mean(&alone(e, m.entry)?);
        if alone > best_member.0 {
            best_member = (alone, &m.name);
        }
    }
    let line = |of: &dyn Fn(&[f64]) -> f64| -> Vec<(f64, f64)> {
        betas.iter().zip(&per_beta).map(|(b, a)| (place(*b), of(a))).collect()
    };
    let average = line(&mean);
    let level = best_member.0;
    let mut left = panel("average", average.iter().map(|p| p.1).chain([level, used]));
    left.alt = format!("Average AUROC of {} as β goes from −∞ to ∞", c.name);
    left.marks.push(Mark::rule(vec![(-END, level), (END, level)], Ink::Muted));
    left.marks.extend([Mark::line(average, Ink::Text)]);
    left.marks.push(Mark::Dots {
        points: vec![(place(c.beta), used)],
        ink: Ink::Series(1),
        opacity: 1.0,
        radius: 4,
    });
    let mut right = panel("each set", per_beta.iter().flatten().copied());
    right.alt = format!("AUROC of {} on each set as β goes from −∞ to ∞", c.name);
    for set in 0..e.ood.len() {
        right.marks.push(Mark::line(line(&|a| a[set]), Ink::Series(set)));
    }
    let sets = e.ood.iter().enumerate().map(|(i, s)| (s.name.clone(), Ink::Series(i)));
    let mut legend: Vec<(String, Ink)> = sets.collect();
    let (level, member) = best_member;
    legend.push((format!("best member alone: {member}, {:.2} %", 100.0 * level), Ink::Muted));
    let body = left.html()? + &right.html()?;
    let caption = format!("{}. {CAPTION}", c.name);
    Ok(figure(&format!("fig-beta-{n}"), &legend, &body, &caption))
}

fn panel(title: &str, values: impl Iterator<Item = f64> + Clone) -> Panel {
    let low = values.clone().fold(1.0, f64::min);
    let high = values.fold(0.0, f64::max);
    let space = 0.06 * (high - low).max(0.005);
    let mut x = Axis::new("β", -END - 0.6..END + 0.6);
    x.format = Some(|v| match v {
        v if v <= -END => "−∞".into(),
        v if v >= END => "∞".into(),
        v => format!("{v:.0}"),
    });
    let mut y = Axis::new("AUROC (%)", low - space..high + space);
    y.format = Some(|v| format!("{:.1}", 100.0 * v));
    Panel::new(title, x, y)
}

fn place(beta: f64) -> f64 {
    if beta.is_infinite() { END * beta.signum() } else { beta.clamp(-END + 1.0, END - 1.0) }
}

/// AUROC on each set with that β.
fn aurocs(e: &Evaluation, c: &Composition, beta: f64) -> Result<Vec<f64>> {
    let compose = |scores: &dyn Fn(usize) -> Vec<f32>| -> Vec<f32> {
        let members: Vec<Vec<f32>> = c.members.iter().map(|m| scores(m.entry)).collect();
        let mut u = vec![0.0; members.len()];
        let row = |row: usize| {
            for ((u, scores), m) in u.iter_mut().zip(&members).zip(&c.members) {
                *u = (f64::from(scores[row]) - m.mean) / m.std;
            }
            combine(&u, beta) as f32
        };
        (0..members[0].len()).map(row).collect()
    };
    let id = compose(&|entry| e.id_scores(entry).to_vec());
    let of = |set| metrics::auroc(&id, &compose(&|entry| e.ood_scores(set, entry).to_vec()));
    (0..e.ood.len()).map(of).collect()
}

fn alone(e: &Evaluation, entry: usize) -> Result<Vec<f64>> {
    let of = |set| metrics::auroc(e.id_scores(entry), e.ood_scores(set, entry));
    (0..e.ood.len()).map(of).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
