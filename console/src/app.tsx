/** The frame around every page: navigation, connection notice, and the routes. Pages are loaded when first opened. */
import { ActionIcon, AppShell, Burger, Group, NavLink, Text, useMantineColorScheme } from "@mantine/core";
import { useDisclosure, useHotkeys } from "@mantine/hooks";
import { Suspense } from "react";
import { Link, Route, Switch, useLocation } from "wouter";
import { caller } from "./api/caller";
import { platformPages } from "./platform/pages";
import { useLiveSessions } from "./sessions/live";
import { SessionsPage } from "./sessions/page";
import { ErrorBoundary } from "./ui/boundary";
import { ConnectionNotice } from "./ui/connection";
import { KeysHelp } from "./ui/keys";
import { lazyPart } from "./ui/lazy";
import { CommandPalette } from "./ui/palette";
import { NotFound, PageLoading } from "./ui/states";

const NewSessionPage = lazyPart(() => import("./create/page"));
const SessionPage = lazyPart(() => import("./session/page"));
const RecoveryPage = lazyPart(() => import("./recovery/page"));
const PlatformPage = lazyPart(() => import("./platform/page"));

export function App() {
  const [menuOpen, menu] = useDisclosure(false);
  const [palette, paletteState] = useDisclosure(false);
  const [keys, keysState] = useDisclosure(false);
  const [path, go] = useLocation();
  useLiveSessions();
  useHotkeys([
    ["mod+K", paletteState.toggle],
    ["shift+?", keysState.toggle],
    ["n", () => go("/new")],
    ["g", () => go("/")],
  ]);
  return (
    <AppShell
      header={{ height: 52 }}
      navbar={{ width: 210, breakpoint: "sm", collapsed: { mobile: !menuOpen } }}
      padding="md"
    >
      <AppShell.Header>
        <a className="skip" href="#main">
          Skip to the content
        </a>
        <Group h="100%" px="md" justify="space-between" wrap="nowrap">
          <Group gap="sm" wrap="nowrap">
            <Burger
              opened={menuOpen}
              onClick={menu.toggle}
              hiddenFrom="sm"
              size="sm"
              aria-label="Navigation"
            />
            <Text component={Link} href="/" fw={700} className="home">
              purple8-sandbox
            </Text>
          </Group>
          <ConnectionNotice />
          <Group gap="xs" wrap="nowrap">
            <ActionIcon
              variant="default"
              aria-label="Commands"
              title="Commands (Ctrl K)"
              onClick={paletteState.open}
            >
              ⌘
            </ActionIcon>
            <ActionIcon
              variant="default"
              aria-label="Keyboard shortcuts"
              title="Shortcuts (?)"
              onClick={keysState.open}
            >
              ?
            </ActionIcon>
            <ColorScheme />
          </Group>
        </Group>
      </AppShell.Header>
      <AppShell.Navbar p="xs" component="nav" aria-label="Main">
        <Navigation path={path} onChoose={menu.close} />
      </AppShell.Navbar>
      <AppShell.Main id="main" tabIndex={-1}>
        <ErrorBoundary key={path.split("/").slice(0, 3).join("/")}>
          <Suspense fallback={<PageLoading />}>
            <Switch>
              <Route path="/" component={SessionsPage} />
              <Route path="/new" component={NewSessionPage} />
              <Route path="/sessions/:id/:part?">
                {({ id, part }) => <SessionPage key={id} id={id} part={part} />}
              </Route>
              {caller.isAdmin && <Route path="/recovery" component={RecoveryPage} />}
              <Route path="/platform/:part/*?">
                {(params) => <PlatformPage part={params.part} item={params["*"]} />}
              </Route>
              <Route>
                <NotFound what="page" />
              </Route>
            </Switch>
          </Suspense>
        </ErrorBoundary>
      </AppShell.Main>
      <CommandPalette opened={palette} onClose={paletteState.close} />
      <KeysHelp opened={keys} onClose={keysState.close} />
    </AppShell>
  );
}

function Navigation({ path, onChoose }: { path: string; onChoose: () => void }) {
  const entries = [
    { label: "Sessions", href: "/", isActive: path === "/" || path.startsWith("/sessions/") },
    { label: "New session", href: "/new", isActive: path === "/new" },
    ...(caller.isAdmin ? [{ label: "Recovery", href: "/recovery", isActive: path === "/recovery" }] : []),
  ];
  const pages = platformPages.filter((page) => caller.isAdmin || !page.isAdminOnly);
  return (
    <>
      {entries.map(({ label, href, isActive }) => (
        <NavLink key={href} component={Link} href={href} label={label} active={isActive} onClick={onChoose} />
      ))}
      <Text size="xs" c="dimmed" fw={600} mt="md" mb={4} px="sm">
        Platform
      </Text>
      <div className="nav-platform">
        {pages.map(({ name, title }) => (
          <NavLink
            key={name}
            component={Link}
            href={`/platform/${name}`}
            label={title}
            active={path.startsWith(`/platform/${name}`)}
            onClick={onChoose}
          />
        ))}
      </div>
      <form method="post" action="/logout" className="sign-out">
        <Text size="xs" c="dimmed" truncate title={caller.userId}>
          {caller.userId}
        </Text>
        <button type="submit" className="link">
          Sign out
        </button>
      </form>
    </>
  );
}

function ColorScheme() {
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  const next = ({ auto: "light", light: "dark", dark: "auto" } as const)[colorScheme];
  const icon = { auto: "◐", light: "☀", dark: "☾" }[colorScheme];
  return (
    <ActionIcon
      variant="default"
      aria-label={`Colours: ${colorScheme}. Change to ${next}`}
      title={`Colours: ${colorScheme}`}
      onClick={() => setColorScheme(next)}
    >
      {icon}
    </ActionIcon>
  );
}
