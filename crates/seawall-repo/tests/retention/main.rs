//! What is kept: the planner against a world that knows what happened.

mod calendar;
mod hazards;
mod promises;
mod scale;
mod world;
