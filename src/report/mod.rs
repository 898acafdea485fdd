//! One self-contained page about some runs: metrics, learning curves, speed, popularity, and what thoughts attend to.
//!
//! The page needs nothing but itself: no script, no font, no network. Whatever comes from outside, such as titles, is
//! escaped, and the page forbids itself to load or run anything.

mod attention;
mod axis;
mod chart;
mod contents;
mod curves;
mod html;
mod label;
mod make;
mod overview;
mod page;
mod picture;
mod popularity;
mod quality;
mod run;
mod samples;
mod speed;
mod standing;

pub use attention::{Examples, View, views};
pub use contents::{Contents, Evaluated, Subject};
pub use make::{Report, ReportConfig, ReportEvent};
pub use page::{is_page, page};
pub use picture::{Series, picture};
pub use run::Run;
pub use standing::{Best, Standing};
