//! How a chart is drawn, whatever it shows.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::prelude::*;

use crate::contender::Failure;

/// Colours that most people can tell from each other, also without seeing red or green.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(170, 51, 140),
    RGBColor(200, 140, 0),
    RGBColor(60, 160, 215),
    RGBColor(60, 60, 60),
    RGBColor(120, 120, 0),
];
const INK: RGBColor = RGBColor(32, 33, 36);
const GRID: RGBColor = RGBColor(222, 224, 228);
/// What a logarithm is taken of at least.
const LEAST: f64 = 1e-3;
const SIZE: (u32, u32) = (920, 430);
const ROW: u32 = 34;
/// Characters of a label that are shown, and the width of one in pixels.
const LABEL: (usize, u32) = (34, 8);

/// The entrants that a chart can show at most.
pub(super) const AT_MOST: usize = COLOURS.len();

/// An axis.
pub(super) struct Axis {
    /// What it counts, with its unit.
    pub(super) name: String,
    pub(super) scale: Scale,
}

#[derive(Clone, PartialEq)]
pub(super) enum Scale {
    /// Powers of ten are as far apart as others.
    Log,
    /// The same, with ticks at these values.
    LogAt(Vec<f64>),
    /// From zero.
    Linear,
    /// At 0, 1, 2, ... there is a name.
    Names(Vec<String>),
}

/// A line.
pub(super) struct Line {
    pub(super) label: String,
    /// Lines of the same number have the same colour.
    pub(super) colour: usize,
    pub(super) dashed: bool,
    pub(super) points: Vec<(f64, f64)>,
}

/// A bar from one value to another, with a mark in between.
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) colour: usize,
    pub(super) from: f64,
    pub(super) mark: Option<f64>,
    pub(super) to: f64,
    /// What is written at its end.
    pub(super) value: String,
}

/// An axis that knows its values: how far it goes, and where its ticks are.
#[derive(Clone)]
struct Ticks {
    range: Range<f64>,
    at: Vec<f64>,
    scale: Scale,
}

impl Ticks {
    fn of(scale: &Scale, values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let (range, at) = match scale {
            Scale::Names(names) => {
                let last = f64::from(u32::try_from(names.len()).unwrap_or(1)) - 1.0;
                let at = std::iter::successors(Some(0.0), |at| Some(at + 1.0));
                (-0.5..last + 0.5, at.take(names.len()).collect())
            }
            Scale::Linear => {
                let high = high.max(1e-9);
                let step = nice(high / 6.0);
                let steps = std::iter::successors(Some(0.0), |at| Some(at + step));
                (
                    0.0..high * 1.06,
                    steps.take_while(|at| *at <= high * 1.06).collect(),
                )
            }
            Scale::Log | Scale::LogAt(_) => {
                let (low, high) = (low.max(LEAST), high.max(LEAST));
                // A little room, and never less than a factor of two.
                let range = low / 1.25..high.max(low * 2.0) * 1.25;
                let at = match scale {
                    Scale::LogAt(values) => values.clone(),
                    _ => log_ticks(&range),
                };
                (range, at)
            }
        };
        let scale = scale.clone();
        Self { range, at, scale }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place in a list of names"
    )]
    fn label(&self, value: f64) -> String {
        match &self.scale {
            Scale::Log | Scale::LogAt(_) | Scale::Linear => short(value),
            Scale::Names(names) => names.get(value.round() as usize).cloned().unwrap_or_default(),
        }
    }
}

impl Ranged for Ticks {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    #[expect(clippy::cast_possible_truncation, reason = "a pixel")]
    fn map(&self, value: &f64, (first, last): (i32, i32)) -> i32 {
        let place = |value: f64| match self.scale {
            Scale::Log | Scale::LogAt(_) => value.max(LEAST).log10(),
            _ => value,
        };
        let (low, high) = (place(self.range.start), place(self.range.end));
        let part = (place(*value) - low) / (high - low);
        first + (part * f64::from(last - first)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            return Vec::new();
        }
        self.at.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn nice(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= least).unwrap_or(least)
}

/// Ticks at round numbers, and at powers of ten alone where there are many of those.
fn log_ticks(range: &Range<f64>) -> Vec<f64> {
    let wide = range.end / range.start;
    let steps: &[f64] = match wide {
        ..10.0 => &[1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0],
        ..1500.0 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let first = 10_f64.powf(range.start.log10().floor());
    let powers = std::iter::successors(Some(first), |power| Some(power * 10.0));
    powers
        .take_while(|power| *power <= range.end)
        .flat_map(|power| steps.iter().map(move |step| power * step))
        .filter(|at| range.contains(at))
        .collect()
}

/// A number of few letters: `20`, `1.5k`, `2M`.
pub(super) fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        999_500.0.. => (value / 1e6, "M"),
        // Four digits are no longer than three and a letter.
        9_995.0.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = match value.abs() {
        ..0.095 => format!("{value:.3}"),
        ..0.995 => format!("{value:.2}"),
        ..9.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    };
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{unit}")
}

/// What tells labels apart is at both ends: a host, a percentile.
fn cut(label: &str) -> String {
    let long = label.chars().count();
    if long <= LABEL.0 {
        return label.to_owned();
    }
    let half = LABEL.0 / 2;
    let end = label.chars().skip(long - half);
    label
        .chars()
        .take(LABEL.0 - half - 1)
        .chain(['\u{2026}'])
        .chain(end)
        .collect()
}

fn width(labels: &mut dyn Iterator<Item = &str>) -> u32 {
    let longest = labels.map(|label| cut(label).chars().count()).max().unwrap_or(0);
    u32::try_from(longest).unwrap_or(0) * LABEL.1
}

fn text(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

fn colour(number: usize) -> RGBColor {
    COLOURS[number % COLOURS.len()]
}

/// Lines over `x`, with a legend at the right.
pub(super) fn lines(x: &Axis, y: &Axis, lines: &[Line]) -> Result<String, Failure> {
    let points = || lines.iter().flat_map(|line| line.points.iter());
    let (across, up) = (
        Ticks::of(&x.scale, points().map(|point| point.0)),
        Ticks::of(&y.scale, points().map(|point| point.1)),
    );
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let legend = 62 + width(&mut lines.iter().map(|line| line.label.as_str()));
        let (plot, key) = root.split_horizontally(SIZE.0 - legend);
        let mut chart = ChartBuilder::on(&plot)
            .margin(12)
            .x_label_area_size(46)
            .y_label_area_size(72)
            .build_cartesian_2d(across.clone(), up.clone())?;
        chart
            .configure_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(INK)
            .label_style(text(15))
            .axis_desc_style(text(16))
            .x_desc(&x.name)
            .y_desc(&y.name)
            .x_label_formatter(&|value| across.label(*value))
            .y_label_formatter(&|value| up.label(*value))
            .draw()?;
        for (number, line) in lines.iter().enumerate() {
            let points = || line.points.iter().copied();
            let stroke = colour(line.colour).stroke_width(2);
            if line.dashed {
                chart.draw_series(DashedLineSeries::new(points(), 7, 5, stroke))?;
            } else {
                chart.draw_series(LineSeries::new(points(), stroke))?;
            }
            chart.draw_series(points().map(|at| Circle::new(at, 4, colour(line.colour).filled())))?;
            let top = 26 + 22 * i32::try_from(number)?;
            let sample = if line.dashed {
                vec![(6, 15), (21, 30)]
            } else {
                vec![(6, 30)]
            };
            for (from, to) in sample {
                key.draw(&PathElement::new(
                    [(from, top), (to, top)],
                    colour(line.colour).stroke_width(3),
                ))?;
            }
            key.draw(&Text::new(cut(&line.label), (38, top - 8), text(15)))?;
        }
        root.present()?;
    }
    Ok(svg)
}

/// Bars across, one below the other.
pub(super) fn bars(x: &Axis, bars: &[Bar]) -> Result<String, Failure> {
    let rows = u32::try_from(bars.len())?;
    let across = Ticks::of(&x.scale, bars.iter().flat_map(|bar| [bar.from, bar.to]));
    let names = bars.iter().rev().map(|bar| cut(&bar.label)).collect();
    let up = Ticks::of(&Scale::Names(names), std::iter::empty());
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (SIZE.0, 76 + rows * ROW)).into_drawing_area();
        root.fill(&WHITE)?;
        let room = width(&mut bars.iter().map(|bar| bar.value.as_str()));
        let mut chart = ChartBuilder::on(&root)
            .margin(12)
            .margin_right(24 + room)
            .x_label_area_size(46)
            .y_label_area_size(16 + width(&mut bars.iter().map(|bar| bar.label.as_str())))
            .build_cartesian_2d(across.clone(), up.clone())?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(INK)
            .label_style(text(15))
            .axis_desc_style(text(16))
            .x_desc(&x.name)
            .x_label_formatter(&|value| across.label(*value))
            .y_label_formatter(&|value| up.label(*value))
            .draw()?;
        let mut middle = f64::from(rows) - 1.0;
        for bar in bars {
            let (from, to) = (bar.from, bar.to);
            let (low, high) = (middle - 0.28, middle + 0.28);
            let (paint, edge) = (colour(bar.colour), colour(bar.colour).stroke_width(2));
            chart.draw_series([Rectangle::new(
                [(from, low), (to, high)],
                paint.mix(0.55).filled(),
            )])?;
            // A bar from a value to the same one has an edge at least.
            chart.draw_series([Rectangle::new([(from, low), (to, high)], edge)])?;
            if let Some(mark) = bar.mark {
                chart.draw_series([PathElement::new([(mark, low), (mark, high)], INK.stroke_width(2))])?;
            }
            let beside = EmptyElement::at((to, middle)) + Text::new(bar.value.clone(), (8, -8), text(15));
            chart.draw_series([beside])?;
            middle -= 1.0;
        }
        root.present()?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, expected) in [
            (0.0, "0"),
            (0.05, "0.05"),
            (0.5, "0.5"),
            (2.0, "2"),
            (1.25, "1.2"),
            (20.0, "20"),
            (1500.0, "1500"),
            (15_000.0, "15k"),
            (2e6, "2M"),
        ] {
            assert_eq!(short(value), expected);
        }
    }

    #[test]
    fn long_labels_keep_both_ends() {
        let label = cut("postgres://database.example.com:5432/application p99");
        assert_eq!(label.chars().count(), LABEL.0);
        assert!(
            label.starts_with("postgres://") && label.ends_with(" p99"),
            "{label}"
        );
        assert_eq!(cut("redis p50"), "redis p50");
    }

    #[test]
    fn ticks_are_few_and_round() {
        for (low, high) in [(1.0, 2.0), (47.0, 5312.0), (0.2, 1e6), (3.0, 3.0)] {
            let ticks = Ticks::of(&Scale::Log, [low, high].into_iter());
            assert!((2..=12).contains(&ticks.at.len()), "{low} {high}: {:?}", ticks.at);
            assert!(ticks.range.contains(&low) && ticks.range.contains(&high));
            let ticks = Ticks::of(&Scale::Linear, [low, high].into_iter());
            assert!((3..=12).contains(&ticks.at.len()), "{low} {high}: {:?}", ticks.at);
        }
    }
}
