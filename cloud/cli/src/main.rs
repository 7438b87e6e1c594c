//! `outrigger`: the operator's command. It ships models to a fleet and looks after its devices,
//! through the admin API of `outrigger-cloud` and nothing else.
//!
//! Data goes to stdout, everything else to stderr. [`commands`] has one file per command,
//! [`client`] the API, [`config`] what `login` left behind, [`lab`] models timed on a device through
//! both, [`probe`] the first contact with a
//! cloud that is known only by a hash, [`repository`] the offline half of what says what is installed,
//! [`revocation`] what takes keys and tokens back, [`runtime`] ONNX Runtime, `token_file` where tokens
//! go, and [`output`] tables and words.

use clap::{Parser, Subcommand};
use std::process::ExitCode;

mod client;
mod commands;
mod config;
mod errors;
mod lab;
mod output;
mod probe;
mod repository;
mod revocation;
mod runtime;
mod time;
mod token_file;

/// Ships models to a fleet of devices, and looks after it.
#[derive(Parser)]
#[command(name = "outrigger", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Meet a cloud, with a key that was made there or by signing in.
    Login(commands::login::Args),
    /// End a sign-in, and forget the key.
    Logout(commands::logout::Args),
    /// Compress, calibrate, inspect, push, list and assign models.
    #[command(subcommand)]
    Model(Model),
    /// Let devices in, list them, and shut them out.
    #[command(subcommand)]
    Device(Device),
    /// Bring a version to devices in stages, watch it, and take it back.
    #[command(subcommand)]
    Rollout(Rollout),
    /// Give queries over devices a name.
    #[command(subcommand)]
    Group(Group),
    /// Ship the devices' own program, and say which version runs where.
    #[command(subcommand)]
    Agent(Agent),
    /// Let inference nodes in, list them, and shut them out.
    #[command(subcommand)]
    Node(Node),
    /// Make, list and revoke the keys of people and programs.
    #[command(subcommand)]
    Key(Key),
    /// Have models timed on devices whose owners allow it.
    #[command(subcommand)]
    Lab(Lab),
    /// Keep the repository that says what devices may install.
    #[command(subcommand)]
    Repo(Repo),
    /// Say for whom devices seal what they record, and read it.
    #[command(subcommand)]
    Telemetry(Telemetry),
    /// Say which models the keys and devices of a tenant may ask.
    #[command(subcommand)]
    Tenant(Tenant),
    /// Show what tenants, keys and devices, or models took.
    Usage(commands::usage::Args),
    /// Show who changed what.
    Audit(commands::audit::Args),
}

#[derive(Subcommand)]
enum Model {
    /// Make a model small and fast by integers, and measure what that cost.
    Compress(commands::model::compress::Args),
    /// Remove channels without training: the others take over their work.
    Prune(commands::model::prune::Args),
    /// Make an edge variant of one large classifier: cut early, with a head that is fitted without training.
    DistillEdge(commands::model::distill_edge::Args),
    /// Half the bits for every float, for GPUs
    Float16(commands::model::float16::Args),
    /// Round the updates of a fine-tuned model, so that its delta is small.
    Settle(commands::model::settle::Args),
    /// Measure from which confidence on an edge answer is accepted, at a stated risk.
    Calibrate(commands::model::calibrate::Args),
    /// Show what is in an ONNX file: inputs, operators, parameters, multiplications of each layer.
    Inspect(commands::model::inspect::Args),
    /// Show how one ONNX file differs from another.
    Diff(commands::model::diff::Args),
    /// Measure accuracy with its interval, time and size on labelled data.
    Evaluate(commands::model::evaluate::Args),
    /// Build, sign and upload a new version from a folder with model.toml.
    Push(commands::model::push::Args),
    /// Sign a folder as the OpenSSF does it, for whoever gets it outside of a fleet.
    Sign(commands::model::sign::Args),
    /// Check a folder against such a signature.
    Verify(commands::model::verify::Args),
    /// List what the cloud holds.
    List(commands::model::list::Args),
    /// Say which version one device, or every device, should run.
    Assign(commands::model::assign::Args),
    /// Say which versions answer side by side on the cloud; the newest alone unless said.
    Policy(commands::model::policy::Args),
}

#[derive(Subcommand)]
enum Rollout {
    /// Say whom a roll-out would reach, stage by stage; nothing begins.
    Plan(commands::rollout::start::Args),
    /// Begin one.
    Start(commands::rollout::start::Args),
    /// Show how one stands, or list all.
    Status(commands::rollout::status::Args),
    /// Look on until it is over.
    Watch(commands::rollout::one::Args),
    /// Stop it for now; whoever has the version keeps it.
    Pause(commands::rollout::one::Args),
    /// Let it go on, whatever was silent.
    Resume(commands::rollout::one::Args),
    /// Agree to one that somebody else has planned.
    Approve(commands::rollout::one::Args),
    /// Give it up: devices go back to what they had.
    Abort(commands::rollout::one::Args),
    /// Show everything that happened, and why.
    History(commands::rollout::one::Args),
}

#[derive(Subcommand)]
enum Group {
    /// Give a query a name, or another query to a name.
    Set(commands::group::set::Args),
    /// List groups, and how many devices they have now.
    List(commands::group::list::Args),
    /// Forget a group.
    Remove(commands::group::remove::Args),
}

#[derive(Subcommand)]
enum Agent {
    /// Sign and upload a build of outrigger-agent.
    Push(commands::agent::push::Args),
    /// Say which version one device, or every device, should run.
    Assign(commands::agent::assign::Args),
    /// List builds, and how far each device is.
    Status(commands::agent::status::Args),
}

#[derive(Subcommand)]
enum Node {
    /// Make a one-time token with which one inference node can join.
    Token(commands::node::token::Args),
    /// List inference nodes: where they are, and how busy.
    List(commands::node::list::Args),
    /// Shut an inference node out, at once and for good.
    Remove(commands::node::remove::Args),
}

#[derive(Subcommand)]
enum Key {
    /// Make a key; it is shown once.
    Create(commands::key::create::Args),
    /// List keys, the revoked ones too.
    List(commands::key::list::Args),
    /// Revoke a key, at once and for good.
    Revoke(commands::key::revoke::Args),
}

#[derive(Subcommand)]
enum Lab {
    /// Show this machine's lab key, for the operator who delegates; it is made where there is none.
    Key,
    /// As an operator whom devices trust: let a lab key have models timed, for a while.
    Delegate(commands::lab::delegate::Args),
    /// Keep what an operator allows this machine's lab key.
    Accept(commands::lab::accept::Args),
    /// Time models on a device, in turn with the first of them.
    Measure(commands::lab::measure::Args),
}

#[derive(Subcommand)]
enum Repo {
    /// Make a repository, with keys of its own, for a fleet that has none.
    Init(commands::repo::init::Args),
    /// Name what was pushed as good.
    Sign(commands::repo::sign::Args),
    /// Let a team name its own models as good.
    Delegate(commands::repo::delegate::Args),
    /// Give a role new keys; its old ones count no more.
    Rotate(commands::repo::rotate::Args),
    /// Sign the same again, good for longer.
    Refresh(commands::repo::refresh::Args),
    /// Name versions as good no more.
    Remove(commands::repo::remove::Args),
    /// Add your signatures to a draft; the last one publishes it.
    Cosign(commands::repo::cosign::Args),
    /// Show who may say what, until when.
    Show(commands::repo::show::Args),
}

#[derive(Subcommand)]
enum Telemetry {
    /// Make the analytics key, and tell devices of its public half.
    Key(commands::telemetry::key::Args),
    /// Copy what devices have recorded, as they have sealed it.
    Pull(commands::telemetry::pull::Args),
    /// Open what was copied: one JSON object for each record.
    Decrypt(commands::telemetry::decrypt::Args),
    /// Open what was copied, and keep it as Parquet.
    #[cfg(feature = "analytics")]
    Import(commands::telemetry::import::Args),
    /// Ask what was imported, by SQL.
    #[cfg(feature = "analytics")]
    Query(commands::telemetry::query::Args),
    /// Sums that may be shown to others: of so many devices that none can be read off.
    #[cfg(feature = "analytics")]
    Export(commands::telemetry::export::Args),
    /// Take all that a device has told out of what was imported.
    #[cfg(feature = "analytics")]
    Forget(commands::telemetry::forget::Args),
    /// Show what devices send, and what that makes in a month.
    Cost(commands::telemetry::cost::Args),
    /// Delete what the cloud keeps of a device, or of a tenant.
    Delete(commands::telemetry::delete::Args),
}

#[derive(Subcommand)]
enum Tenant {
    /// Make a tenant, or say anew what it may ask.
    Set(commands::tenant::set::Args),
    /// List tenants.
    List(commands::tenant::list::Args),
}

#[derive(Subcommand)]
enum Device {
    /// Make a one-time token with which one device can enrol.
    Token(commands::device::token::Args),
    /// List devices: what they should run, and what they say they run.
    List(commands::device::list::Args),
    /// Show one device: what it is, what it should run and what it runs, and why these differ.
    Show(commands::device::show::Args),
    /// Give a device labels, for queries, or take some away.
    Label(commands::device::label::Args),
    /// Shut a device out: its connection ends, and it cannot come back.
    Deny(commands::device::deny::Args),
    /// Let a device in again.
    Allow(commands::device::deny::Args),
    /// Have a device check itself, and say what is wrong there.
    Check(commands::device::check::Args),
    /// Show the end of the log of a device's agent.
    Logs(commands::device::logs::Args),
    /// Forget a device for good: its identity, labels and evidence.
    Remove(commands::device::remove::Args),
}

fn main() -> ExitCode {
    // An error would mean that a provider is installed already; ours is the only one there is.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let result = run(Cli::parse().command);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            errors::report(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Login(args) => commands::login::run(&args),
        Command::Logout(args) => commands::logout::run(&args),
        Command::Model(command) => run_model(&command),
        Command::Device(command) => run_device(&command),
        Command::Rollout(command) => run_rollout(&command),
        Command::Group(command) => run_group(&command),
        Command::Agent(command) => run_agent(&command),
        Command::Node(command) => run_node(&command),
        Command::Key(command) => run_key(&command),
        Command::Lab(command) => run_lab(&command),
        Command::Repo(command) => run_repo(&command),
        Command::Telemetry(command) => run_telemetry(&command),
        Command::Tenant(Tenant::Set(args)) => commands::tenant::set::run(&args),
        Command::Tenant(Tenant::List(args)) => commands::tenant::list::run(&args),
        Command::Usage(args) => commands::usage::run(&args),
        Command::Audit(args) => commands::audit::run(&args),
    }
}

fn run_model(command: &Model) -> anyhow::Result<()> {
    match command {
        Model::Compress(args) => commands::model::compress::run(args),
        Model::Calibrate(args) => commands::model::calibrate::run(args),
        Model::Inspect(args) => commands::model::inspect::run(args),
        Model::Prune(args) => commands::model::prune::run(args),
        Model::DistillEdge(args) => commands::model::distill_edge::run(args),
        Model::Float16(args) => commands::model::float16::run(args),
        Model::Settle(args) => commands::model::settle::run(args),
        Model::Diff(args) => commands::model::diff::run(args),
        Model::Evaluate(args) => commands::model::evaluate::run(args),
        Model::Push(args) => commands::model::push::run(args),
        Model::Sign(args) => commands::model::sign::run(args),
        Model::Verify(args) => commands::model::verify::run(args),
        Model::List(args) => commands::model::list::run(args),
        Model::Assign(args) => commands::model::assign::run(args),
        Model::Policy(args) => commands::model::policy::run(args),
    }
}

fn run_device(command: &Device) -> anyhow::Result<()> {
    match command {
        Device::Token(args) => commands::device::token::run(args),
        Device::List(args) => commands::device::list::run(args),
        Device::Deny(args) => commands::device::deny::run(args, true),
        Device::Allow(args) => commands::device::deny::run(args, false),
        Device::Show(args) => commands::device::show::run(args),
        Device::Label(args) => commands::device::label::run(args),
        Device::Check(args) => commands::device::check::run(args),
        Device::Logs(args) => commands::device::logs::run(args),
        Device::Remove(args) => commands::device::remove::run(args),
    }
}

fn run_rollout(command: &Rollout) -> anyhow::Result<()> {
    match command {
        Rollout::Plan(args) => commands::rollout::start::run(args, true),
        Rollout::Start(args) => commands::rollout::start::run(args, false),
        Rollout::Status(args) => commands::rollout::status::run(args),
        Rollout::Watch(args) => commands::rollout::watch::run(args),
        Rollout::Pause(args) => commands::rollout::command::run(args, "pause"),
        Rollout::Resume(args) => commands::rollout::command::run(args, "resume"),
        Rollout::Approve(args) => commands::rollout::command::run(args, "approve"),
        Rollout::Abort(args) => commands::rollout::command::run(args, "abort"),
        Rollout::History(args) => commands::rollout::history::run(args),
    }
}

fn run_group(command: &Group) -> anyhow::Result<()> {
    match command {
        Group::Set(args) => commands::group::set::run(args),
        Group::List(args) => commands::group::list::run(args),
        Group::Remove(args) => commands::group::remove::run(args),
    }
}

fn run_agent(command: &Agent) -> anyhow::Result<()> {
    match command {
        Agent::Push(args) => commands::agent::push::run(args),
        Agent::Assign(args) => commands::agent::assign::run(args),
        Agent::Status(args) => commands::agent::status::run(args),
    }
}

fn run_node(command: &Node) -> anyhow::Result<()> {
    match command {
        Node::Token(args) => commands::node::token::run(args),
        Node::List(args) => commands::node::list::run(args),
        Node::Remove(args) => commands::node::remove::run(args),
    }
}

fn run_key(command: &Key) -> anyhow::Result<()> {
    match command {
        Key::Create(args) => commands::key::create::run(args),
        Key::List(args) => commands::key::list::run(args),
        Key::Revoke(args) => commands::key::revoke::run(args),
    }
}

fn run_lab(command: &Lab) -> anyhow::Result<()> {
    match command {
        Lab::Key => commands::lab::key::run(),
        Lab::Delegate(args) => commands::lab::delegate::run(args),
        Lab::Accept(args) => commands::lab::accept::run(args),
        Lab::Measure(args) => commands::lab::measure::run(args),
    }
}

fn run_repo(command: &Repo) -> anyhow::Result<()> {
    match command {
        Repo::Init(args) => commands::repo::init::run(args),
        Repo::Sign(args) => commands::repo::sign::run(args),
        Repo::Delegate(args) => commands::repo::delegate::run(args),
        Repo::Rotate(args) => commands::repo::rotate::run(args),
        Repo::Refresh(args) => commands::repo::refresh::run(args),
        Repo::Remove(args) => commands::repo::remove::run(args),
        Repo::Cosign(args) => commands::repo::cosign::run(args),
        Repo::Show(args) => commands::repo::show::run(args),
    }
}

fn run_telemetry(command: &Telemetry) -> anyhow::Result<()> {
    match command {
        Telemetry::Key(args) => commands::telemetry::key::run(args),
        Telemetry::Pull(args) => commands::telemetry::pull::run(args),
        Telemetry::Decrypt(args) => commands::telemetry::decrypt::run(args),
        #[cfg(feature = "analytics")]
        Telemetry::Import(args) => commands::telemetry::import::run(args),
        #[cfg(feature = "analytics")]
        Telemetry::Query(args) => commands::telemetry::query::run(args),
        #[cfg(feature = "analytics")]
        Telemetry::Export(args) => commands::telemetry::export::run(args),
        #[cfg(feature = "analytics")]
        Telemetry::Forget(args) => commands::telemetry::forget::run(args),
        Telemetry::Cost(args) => commands::telemetry::cost::run(args),
        Telemetry::Delete(args) => commands::telemetry::delete::run(args),
    }
}
