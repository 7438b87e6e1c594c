//! The least that a sign-in asks of a browser: redirects, cookies and plain forms.

use anyhow::{Context, bail};
use std::collections::BTreeMap;
use ureq::http::{Request, Response, header};

/// More pages than any sign-in has.
const PAGES_MAX: usize = 20;

/// A browser with its cookies: who signed in once is known to the provider the next time.
pub struct Browser {
    http: ureq::Agent,
    cookies: BTreeMap<String, String>,
}

/// Where a visit ended.
#[derive(Debug, Clone)]
pub struct Visit {
    /// The address.
    pub url: String,
    /// The page, as text; empty where it was not asked for.
    pub page: String,
}

impl Visit {
    /// A parameter of the address, decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let (_, query) = self.url.split_once('?')?;
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}

impl Default for Browser {
    fn default() -> Self {
        let config = ureq::Agent::config_builder().proxy(None).max_redirects(0);
        let http = config.http_status_as_error(false).build().new_agent();
        Self { http, cookies: BTreeMap::new() }
    }
}

impl Browser {
    /// Opens an address, signs in under this name where a page asks for one, agrees to what is asked, and follows the
    /// way back to the application.
    ///
    /// # Errors
    /// A page that is none of these, with what it says.
    pub fn sign_in(&mut self, url: &str, name: &str) -> anyhow::Result<Visit> {
        let back = self.way_back(url, name)?;
        let page = self.get(&back)?.body_mut().read_to_string()?;
        Ok(Visit { url: back, page })
    }

    /// The same without the last step: the application's address, which is not opened.
    ///
    /// # Errors
    /// A page that is none of these, with what it says.
    pub fn way_back(&mut self, url: &str, name: &str) -> anyhow::Result<String> {
        let site = origin(url)?;
        let mut response = self.get(url)?;
        for _ in 0..PAGES_MAX {
            let next = response.headers().get(header::LOCATION);
            response = if let Some(next) = next.map(|next| next.to_str()).transpose()? {
                let next =
                    if next.starts_with('/') { format!("{site}{next}") } else { next.into() };
                if origin(&next)? != site {
                    return Ok(next);
                }
                self.get(&next)?
            } else {
                let page = response.body_mut().read_to_string()?;
                let form = Form::of(&page, name).with_context(|| page.clone())?;
                self.post(&form.action, &form.fields)?
            };
        }
        bail!("{url} leads to no end")
    }

    /// Opens an address, and goes back from the page that asks for a name.
    ///
    /// # Errors
    /// There is no such page.
    pub fn turn_back(&mut self, url: &str) -> anyhow::Result<Visit> {
        let site = origin(url)?;
        let response = self.get(url)?;
        let page = response.headers().get(header::LOCATION).context("no page asks for a name")?;
        let abort = format!("{site}{}/abort", page.to_str()?);
        let mut next = abort;
        while origin(&next)? == site {
            let response = self.get(&next)?;
            let location = response.headers().get(header::LOCATION).context("it leads nowhere")?;
            next = location.to_str()?.to_owned();
        }
        let page = self.get(&next)?.body_mut().read_to_string()?;
        Ok(Visit { url: next, page })
    }

    fn get(&mut self, url: &str) -> anyhow::Result<Response<ureq::Body>> {
        let request = Request::get(url).header(header::COOKIE, self.cookie()).body(())?;
        let response = self.http.run(request)?;
        self.remember(&response)?;
        Ok(response)
    }

    fn post(&mut self, url: &str, fields: &str) -> anyhow::Result<Response<ureq::Body>> {
        let request = Request::post(url)
            .header(header::COOKIE, self.cookie())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(fields.to_owned())?;
        let response = self.http.run(request)?;
        self.remember(&response)?;
        Ok(response)
    }

    fn cookie(&self) -> String {
        let cookies: Vec<_> = self.cookies.iter().map(|(k, v)| format!("{k}={v}")).collect();
        cookies.join("; ")
    }

    fn remember(&mut self, response: &Response<ureq::Body>) -> anyhow::Result<()> {
        for cookie in response.headers().get_all(header::SET_COOKIE) {
            let pair = cookie.to_str()?.split(';').next().unwrap_or_default();
            let (name, value) = pair.split_once('=').context("a cookie without a value")?;
            self.cookies.insert(name.into(), value.into());
        }
        Ok(())
    }
}

/// A form that is filled in.
struct Form {
    action: String,
    fields: String,
}

impl Form {
    fn of(page: &str, name: &str) -> anyhow::Result<Self> {
        let action = attribute(page, "action=\"").context("a page without a form")?;
        let prompt =
            attribute(page, "name=\"prompt\" value=\"").context("a form of another kind")?;
        let fields = match prompt {
            "login" => format!("prompt=login&login={name}&password=any"),
            other => format!("prompt={other}"),
        };
        Ok(Self { action: action.into(), fields })
    }
}

fn attribute<'a>(page: &'a str, before: &str) -> Option<&'a str> {
    let (_, rest) = page.split_once(before)?;
    rest.split('"').next()
}

fn origin(url: &str) -> anyhow::Result<String> {
    let (scheme, rest) = url.split_once("://").with_context(|| format!("no address: {url}"))?;
    Ok(format!("{scheme}://{}", rest.split(['/', '?']).next().unwrap_or_default()))
}
