# Makes agent and watchdog services instead, for a host on which nobody is logged on. In session 0 MetaTrader has no
# windows: it cannot be asked to close, only killed, and nobody has proven that it trades there (docs/host.md). Prefer
# logon-tasks.ps1. Needs NSSM, and the account's right to log on as a service (secpol.msc). Run it as an administrator.
#
# Nobody has run this on Windows yet; what is to be tried stands in logon-tasks.ps1, with Stop-Service for 2 and 5.
param([string]$Account = 'bitten', [string]$Folder = 'C:\bitten', [string]$Nssm = 'nssm.exe')
$ErrorActionPreference = 'Stop'
$login = Get-Credential -UserName ".\$Account" -Message 'The account that terminals run as'

function Install-Service([string]$Name, [string]$What, [int]$KillTree) {
    $arguments = "-NoProfile -ExecutionPolicy Bypass -File `"$Folder\run.ps1`" $What -Folder `"$Folder`""
    & $Nssm install $Name powershell.exe $arguments
    if ($LASTEXITCODE) { throw "NSSM could not install $Name." }
    & $Nssm set $Name AppDirectory $Folder
    & $Nssm set $Name AppExit Default Restart
    & $Nssm set $Name AppRestartDelay 1000
    & $Nssm set $Name AppKillProcessTree $KillTree
    # Not `nssm set ObjectName`: a password does not belong into a command line.
    $service = Get-CimInstance Win32_Service -Filter "Name='$Name'"
    $changed = Invoke-CimMethod $service -MethodName Change -Arguments @{
        StartName = ".\$Account"; StartPassword = $login.GetNetworkCredential().Password
    }
    if ($changed.ReturnValue) { throw "$Name cannot log on as ${Account}: error $($changed.ReturnValue)." }
    Start-Service $Name
}

# The watchdog with all that it started; neither depends on the other.
Install-Service 'BittenWatchdog' 'watchdog' 1
# Not the agent's tree: demo terminals outlive it. So stopping the service ends run.ps1 alone, and an update of the agent
# ends the rest by its command line, never by its name, which is the watchdog's too:
#   Get-CimInstance Win32_Process -Filter "CommandLine LIKE '%bitten-agent%worker%'" | ForEach-Object { Stop-Process $_.ProcessId }
Install-Service 'BittenAgent' 'worker' 0
