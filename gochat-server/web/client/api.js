// @ts-check
/** HTTP: requests with the access token, which is refreshed when it ends (docs/protocol.md §3). */

/** A refusal, as the server explains it (RFC 9457). */
export class Problem extends Error {
  /** @param {number} status @param {{code?: string, detail?: string, hint?: string, retry_after_ms?: number}} body */
  constructor(status, body) {
    super(body.detail || `the server answered with HTTP ${status}`);
    this.status = status;
    this.code = body.code || "";
    this.hint = body.hint || "";
    this.retryAfterMs = body.retry_after_ms || 0;
  }
}

/** A token that ends sooner is renewed before it is used. */
const TOKEN_LEFT_MS = 60_000;

export class Api {
  /**
   * @param {string} url where the server is, with a slash at the end; the API lies below it
   * @param {import("./session.js").Sessions} sessions
   * @param {object} [options]
   * @param {typeof fetch} [options.fetch]
   * @param {<T>(work: () => Promise<T>) => Promise<T>} [options.alone] runs `work` while no other tab does: a refresh token is good for one use
   */
  constructor(url, sessions, options = {}) {
    this.url = url;
    this.sessions = sessions;
    this.fetch = options.fetch ?? ((input, init) => fetch(input, init));
    this.alone = options.alone ?? ((work) => work());
    /** @type {string | null} never stored */
    this.accessToken = null;
    this.expiresAt = 0;
    /** @type {Promise<boolean> | null} */
    this.refreshing = null;
    /** Called when the sign-in has ended for good. */
    this.onSignedOut = () => {};
  }

  /** @returns {import("./types.js").User | null} */
  get user() {
    return this.sessions.load()?.user ?? null;
  }

  /** @param {string} username @param {string} password @param {string} [displayName] */
  async register(username, password, displayName) {
    await this.plain("POST", "/auth/register", { username, password, display_name: displayName || undefined });
    return this.login(username, password);
  }

  /** @param {string} username @param {string} password */
  async login(username, password) {
    return this.accept(await this.plain("POST", "/auth/login", { username, password, device_name: deviceName() }));
  }

  async logout() {
    try {
      await this.request("POST", "/auth/logout");
    } finally {
      this.forget();
    }
  }

  forget() {
    this.accessToken = null;
    this.sessions.save(null);
    this.onSignedOut();
  }

  /** @param {any} session @returns {import("./types.js").User} */
  accept(session) {
    this.accessToken = session.access_token;
    this.expiresAt = Date.now() + session.expires_in * 1000;
    this.sessions.save({ user: session.user, device_id: session.device_id, refresh_token: session.refresh_token });
    return session.user;
  }

  /** The access token is not good any more, whatever its clock says. */
  distrust() {
    this.accessToken = null;
  }

  /**
   * A token that is good for another minute; `null`: nobody is signed in. Throws what `fetch` throws when the server is away.
   * @returns {Promise<string | null>}
   */
  async token() {
    if (this.accessToken && this.expiresAt - Date.now() > TOKEN_LEFT_MS) return this.accessToken;
    return (await this.refresh()) ? this.accessToken : null;
  }

  /** One refresh at a time. @returns {Promise<boolean>} */
  refresh() {
    this.refreshing ??= this.alone(() => this.exchange()).finally(() => (this.refreshing = null));
    return this.refreshing;
  }

  /** @returns {Promise<boolean>} */
  async exchange() {
    // Read anew: another tab may have used the token that we knew.
    const saved = this.sessions.load();
    if (!saved) return false;
    try {
      this.accept(await this.plain("POST", "/auth/refresh", { refresh_token: saved.refresh_token }));
      return true;
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 401) throw error;
      this.forget();
      return false;
    }
  }

  /**
   * @param {string} method @param {string} path below `/api/v1` @param {any} [body] @param {Record<string, string>} [headers]
   * @returns {Promise<any>}
   */
  async request(method, path, body, headers) {
    const token = await this.token();
    if (!token) throw new Problem(401, { code: "UNAUTHENTICATED", detail: "nobody is signed in" });
    try {
      return await this.plain(method, path, body, { ...headers, authorization: `Bearer ${token}` });
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 401 || error.code === "LOGIN_FAILED") throw error;
      this.distrust();
      const fresh = await this.token();
      if (!fresh) throw error;
      return this.plain(method, path, body, { ...headers, authorization: `Bearer ${fresh}` });
    }
  }

  /**
   * @param {string} method @param {string} path @param {any} [body] @param {Record<string, string>} [headers]
   * @returns {Promise<any>}
   */
  async plain(method, path, body, headers) {
    const answer = await this.fetch(`${this.url}api/v1${path}`, {
      method,
      headers: body === undefined ? headers : { "content-type": "application/json", ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await answer.text();
    /** @type {any} */
    let value = null;
    try {
      value = text ? JSON.parse(text) : null;
    } catch {
      value = { detail: `the server answered something that is not JSON (HTTP ${answer.status})` };
    }
    if (!answer.ok) throw new Problem(answer.status, value ?? {});
    return value;
  }
}

function deviceName() {
  const agent = typeof navigator === "undefined" ? "" : navigator.userAgent;
  /** @param {[RegExp, string][]} names */
  const first = (names) => names.find(([pattern]) => pattern.test(agent))?.[1] ?? "";
  const browser = first([[/Firefox/, "Firefox"], [/Edg/, "Edge"], [/Chrome/, "Chrome"], [/Safari/, "Safari"]]) || "Browser";
  const system = first([[/Android/, "Android"], [/iPhone|iPad/, "iOS"], [/Mac/, "macOS"], [/Windows/, "Windows"], [/Linux/, "Linux"]]);
  return system ? `${browser} on ${system}` : browser;
}
