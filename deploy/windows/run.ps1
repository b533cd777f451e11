# Runs the agent (worker) or the watchdog of this host for ever, with the settings of C:\bitten\host.env.
# Both the logon tasks and the services start this. It is not tried: see logon-tasks.ps1.
param(
    [Parameter(Mandatory)][ValidateSet('worker', 'watchdog')][string]$What,
    [string]$Folder = 'C:\bitten'
)
$ErrorActionPreference = 'Stop'

foreach ($line in Get-Content "$Folder\host.env" -Encoding UTF8) {
    if ($line -match '^\s*(FARM_[A-Z_]+)=(.*)$') {
        [Environment]::SetEnvironmentVariable($Matches[1], $Matches[2].Trim().Trim("'"), 'Process')
    }
}
if ($What -eq 'watchdog' -and $env:FARM_POLICY -eq 'static') { exit 0 }    # there is no lease to watch

New-Item -ItemType Directory -Force "$Folder\logs" | Out-Null
while ($true) {
    # cmd, for PowerShell 5 would wrap every line of a log into an error of its own.
    cmd /c "`"$Folder\venv\Scripts\bitten-agent.exe`" $What >> `"$Folder\logs\$What.log`" 2>&1"
    Start-Sleep -Seconds $(if ($What -eq 'watchdog') { 1 } else { 2 })
}
