//! rmcp, the official Rust SDK, in the matrix of clients: commands and results are lines of JSON.

use std::{
    error::Error,
    io::{BufRead, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rmcp::{
    ClientHandler, ErrorData, RoleClient, ServiceExt,
    model::{
        CallToolRequestParams, ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult,
        ElicitationAction, Implementation, ProgressNotificationParam,
    },
    service::{NotificationContext, RequestContext, RunningService},
    transport::{
        StreamableHttpClientTransport,
        auth::{AuthClient, AuthorizationCallback, AuthorizationManager, AuthorizationRequest, OAuthState},
        streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde_json::{Value, json};

type Failure = Box<dyn Error + Send + Sync>;
type Manager = Arc<tokio::sync::Mutex<AuthorizationManager>>;

fn say(line: &Value) {
    println!("{line}");
    let _ = std::io::stdout().flush();
}

fn next() -> Option<String> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line).ok()?;
    (read > 0).then(|| line.trim().to_owned())
}

fn ask(line: &Value) -> String {
    say(line);
    next().unwrap_or_default()
}

#[derive(Clone)]
struct Application {
    name: String,
    progress: Arc<AtomicU64>,
}

impl ClientHandler for Application {
    fn get_info(&self) -> ClientConfig {
        let capabilities: ClientCapabilities =
            serde_json::from_value(json!({"elicitation": {"form": {}, "url": {}}})).unwrap();
        ClientConfig::new(capabilities, Implementation::new(self.name.clone(), "1"))
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        if let ElicitRequestParams::UrlElicitationParams { url, .. } = request {
            ask(&json!({"visit": url}));
            return Ok(ElicitResult::new(ElicitationAction::Accept));
        }
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(json!({"name": "Ada"})))
    }

    async fn on_progress(&self, _: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }
}

struct Client {
    told: Value,
    application: Application,
    manager: Option<Manager>,
    service: Option<RunningService<RoleClient, Application>>,
}

impl Client {
    fn told(&self, name: &str) -> &str {
        self.told[name].as_str().unwrap()
    }

    async fn log_in(&self) -> Result<Manager, Failure> {
        let mut state = OAuthState::new(self.told("url"), None).await?;
        let request = AuthorizationRequest::new(self.told("redirect_uri"))
            .with_client_name(self.told("name"))
            .with_application_type("native");
        state.start_authorization(request).await?;
        let came = ask(&json!({"open": state.get_authorization_url().await?}));
        if came.contains("error=") {
            return Err(came.into());
        }
        state.handle_callback_url(&came).await?;
        let manager = state.into_authorization_manager().ok_or("no manager")?;
        Ok(Arc::new(tokio::sync::Mutex::new(manager)))
    }

    async fn connect(&mut self) -> Result<Value, Failure> {
        if self.manager.is_none() {
            self.manager = Some(self.log_in().await?);
        }
        let mut http = AuthClient::new(
            reqwest::Client::new(),
            AuthorizationManager::new(self.told("url")).await?,
        );
        http.auth_manager = self.manager.clone().unwrap();
        let config = StreamableHttpClientTransportConfig::with_uri(self.told("url").to_owned());
        let transport = StreamableHttpClientTransport::with_client(http, config);
        self.service = Some(self.application.clone().serve(transport).await?);
        Ok(json!({"ok": true}))
    }

    fn service(&self) -> Result<&RunningService<RoleClient, Application>, Failure> {
        self.service.as_ref().ok_or_else(|| "not connected".into())
    }

    async fn list(&self) -> Result<Value, Failure> {
        let tools = self.service()?.list_all_tools().await?;
        let names: Vec<_> = tools.iter().map(|tool| tool.name.to_string()).collect();
        Ok(json!({"tools": names}))
    }

    async fn call(&self, command: &Value) -> Result<Value, Failure> {
        self.application.progress.store(0, Ordering::Relaxed);
        let arguments = command["arguments"].as_object().cloned().unwrap_or_default();
        let params = CallToolRequestParams::new(command["tool"].as_str().unwrap().to_owned())
            .with_arguments(arguments);
        let result = match self.service()?.call_tool(params.clone()).await {
            Err(error) if error.auth_challenge().is_some() => {
                self.widen(error.auth_challenge().unwrap()).await?;
                self.service()?.call_tool(params).await?
            }
            result => result?,
        };
        let text: String = result
            .content
            .iter()
            .filter_map(|part| part.as_text().map(|text| text.text.clone()))
            .collect();
        Ok(json!({
            "text": text,
            "is_error": result.is_error.unwrap_or(false),
            "progress": self.application.progress.load(Ordering::Relaxed),
        }))
    }

    /// Do what the SDK leaves to its application after a 403 `insufficient_scope`.
    async fn widen(&self, challenge: &str) -> Result<(), Failure> {
        let scope = challenge
            .split("scope=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .ok_or("no scope in the challenge")?;
        let manager = self.manager.as_ref().ok_or("not logged in")?.lock().await;
        let came = ask(&json!({"open": manager.request_scope_upgrade(scope).await?}));
        let callback = AuthorizationCallback::from_redirect_url(&came)?;
        manager
            .exchange_code_for_token_with_issuer(
                &callback.code,
                &callback.csrf_token,
                callback.issuer.as_deref(),
            )
            .await?;
        Ok(())
    }
}

fn words(error: &Failure) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = inner.source();
    }
    text
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let told: Value = serde_json::from_str(&std::env::args().nth(1).unwrap()).unwrap();
    let name = told["name"].as_str().unwrap().to_owned();
    let application = Application { name, progress: Arc::default() };
    let mut client = Client { told, application, manager: None, service: None };
    while let Some(line) = tokio::task::spawn_blocking(next).await.unwrap() {
        let command: Value = serde_json::from_str(&line).unwrap();
        let result = match command["do"].as_str().unwrap() {
            "connect" => client.connect().await,
            "list" => client.list().await,
            _ => client.call(&command).await,
        };
        let result = result.unwrap_or_else(|error| {
            let ended = client.service.as_ref().is_some_and(|service| service.is_closed());
            json!({"error": words(&error), "ended": ended})
        });
        say(&json!({"result": result}));
    }
}
